"""What to train, one file each: the command, how long it takes, what comes out."""

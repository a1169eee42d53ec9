"""What runs a model's forward pass beside its exported form: one file each, all a `Look`."""

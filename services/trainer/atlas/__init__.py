"""The atlas: what each emoji means in the pictures and words of the people who post it."""

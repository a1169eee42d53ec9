"""From a data set to a model that says how good it is."""

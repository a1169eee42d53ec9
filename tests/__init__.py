"""A package: without this, one that a dependency brings under the same name would win."""

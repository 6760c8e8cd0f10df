"""A student to ship: read without this package, or a fraction of the size."""

"""From a Program of the keras level to the source files of a package."""

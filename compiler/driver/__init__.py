"""The pipeline, the package on disk, the report."""

"""The science: populations, networks, substeps and whole models."""

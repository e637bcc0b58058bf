"""A paper's own pictures, one module each; what a module offers is said in :mod:`workflow_scripts.pictures.base`."""

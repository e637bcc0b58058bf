"""Reproduce papers on out-of-distribution detection."""

import os

# Before HDF5 is loaded. A file is written under a name of its own and then takes its place, so a lock would guard
# nothing, and there are shared file systems without locks.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

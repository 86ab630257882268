"""Learned optimizers and the science of training them (the SQL tables are in `app/store/tables.py`)."""

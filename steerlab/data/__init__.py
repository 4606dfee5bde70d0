"""Data: the sources table, the doors through which raw files come, loaders, splits and renderings."""

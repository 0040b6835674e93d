"""The answers for an archive: a folder of Parquet parts with a log of what is done."""

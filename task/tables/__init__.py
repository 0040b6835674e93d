"""Tables of any form read as text: CSV, xlsx, Parquet, JSON, also in a zip."""

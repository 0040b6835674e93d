"""The built-in archive: drawn street scenes, as untidy as a real archive, from one seed."""

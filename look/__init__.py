"""The page people look at: results, images, corrections and data of one snapshot."""

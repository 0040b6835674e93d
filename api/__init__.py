"""What is promised to notebooks; the package's root names it."""

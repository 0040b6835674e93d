"""Everything a page shows of one snapshot, gathered from the table and from work/."""

"""What every folder uses: errors, files written whole, locks, sealed records, machine limits."""

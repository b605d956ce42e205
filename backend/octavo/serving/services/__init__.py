"""What every transport and dialect serves with: look-ups, generations, the repository. Knows no socket and no transport."""

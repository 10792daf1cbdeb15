"""Stage 6: stored results to leaderboards."""

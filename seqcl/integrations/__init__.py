"""Other projects: theirs in ours and ours in theirs. Nothing here is imported unless it is asked for."""

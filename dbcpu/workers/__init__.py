"""Worker processes that share one loaded model, and outlive neither a crash nor a hang of their work."""

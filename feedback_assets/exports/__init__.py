"""What goes out: files for trainers."""

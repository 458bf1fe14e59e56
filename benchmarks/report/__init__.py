"""Results as text, Markdown and one HTML file."""

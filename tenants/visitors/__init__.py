"""Page views, and which visitors are online."""

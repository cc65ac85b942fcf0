"""Pictures of any kind as samples: PNG, JPEG, TIFF, BMP."""

"""One reader per data set; each returns a list of fusion.catalog.ImageRecord."""

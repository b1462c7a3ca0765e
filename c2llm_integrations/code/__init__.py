"""Files of a repository → chunks: listing, secrets, languages, cutting; nothing here knows a vector or a store."""

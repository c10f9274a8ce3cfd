"""Makes the verdict from how ranks ended; pure, so it works on a saved run too."""

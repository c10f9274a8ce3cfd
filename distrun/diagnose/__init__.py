"""From how ranks ended to what broke: pure, so that it works on a saved run too."""

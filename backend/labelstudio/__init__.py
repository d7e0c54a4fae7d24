"""Label Studio's side: its masks, labelling interface, regions, API and images. Never imports torch."""

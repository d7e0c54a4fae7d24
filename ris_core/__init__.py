"""An image and a sentence -> a mask. Knows torch; knows no HTTP, no queue and no Label Studio."""

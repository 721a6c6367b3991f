# disk

# vdi

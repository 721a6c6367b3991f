# loop

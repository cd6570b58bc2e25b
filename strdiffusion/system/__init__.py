"""What every room stands on and none of it is about images: errors, files, options, devices, processes, the command line."""

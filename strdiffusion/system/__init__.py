"""What all other packages build on, and nothing about images: errors, files, options, devices, processes, the command line."""

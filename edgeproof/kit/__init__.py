"""`python -m edgeproof.kit serve KIT.zip`: the page of a device kit, on this machine or the local network."""

"""One package per stage; each is a function with typed artifacts in and a typed artifact out."""

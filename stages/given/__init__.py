"""Models and variants that come from elsewhere: taken as they are, and described so that the house can judge them."""

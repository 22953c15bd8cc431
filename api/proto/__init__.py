"""Protocol files shared by controller, mesh and adapters, and the modules generated from them."""

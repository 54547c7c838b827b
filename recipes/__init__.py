"""How the texts behind the models of this project are put together."""

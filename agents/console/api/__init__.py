"""The routes of `/api`, from which the pages get their documents, and the clients and checks behind them."""

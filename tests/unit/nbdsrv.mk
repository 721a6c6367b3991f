# nbdsrv

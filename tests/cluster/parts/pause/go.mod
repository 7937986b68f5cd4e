module weft.dev/parts/pause

go 1.24

FROM alpine AS Build-1.x_y

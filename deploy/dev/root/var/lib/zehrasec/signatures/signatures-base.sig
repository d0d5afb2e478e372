# zehrasec signatures base
ZS-000101 tcp 23   telnet login from outside
ZS-000102 tcp 445  file sharing from outside
ZS-000103 udp 1900 discovery from outside
ZS-000104 tcp 3389 remote desktop from outside
ZS-000105 tcp 22   password guessing
# end 5

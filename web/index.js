// The start page: puts the address of this server into the first query.
"use strict";

const command = document.querySelector("#command");
command.textContent = command.textContent.replace("http://HOST", window.location.origin);
document.querySelector("#host-hint").remove();

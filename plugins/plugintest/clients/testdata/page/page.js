"use strict";

const $ = id => document.getElementById(id);
let client;

$("account").onsubmit = event => {
  event.preventDefault();
  client = new Client($("url").value, $("jid").value, $("password").value,
    state => { $("state").textContent = state; },
    (from, body) => {
      const line = document.createElement("li");
      line.textContent = `${from}: ${body}`;
      $("talk").append(line);
    });
};

$("message").onsubmit = event => {
  event.preventDefault();
  client.say($("to").value, $("body").value);
};

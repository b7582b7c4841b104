// What is said passes by, from the press of the button until it is stopped or ended. The last lines alone are kept.
(function () {
  "use strict";
  var LINES = 200;
  var part = document.querySelector("[data-conversation]");
  if (!part) return;
  var begin = part.querySelector("[data-begin]"), end = part.querySelector("[data-end]");
  var status = part.querySelector("[role=status]"), list = part.querySelector("[role=log]");
  var stream = null;

  function stop(why) {
    if (stream) stream.close();
    stream = null;
    begin.hidden = false;
    end.hidden = true;
    status.textContent = why;
  }

  begin.addEventListener("click", function () {
    begin.hidden = true;
    end.hidden = false;
    end.focus();
    status.textContent = "Beginning …";
    stream = new EventSource(part.dataset.conversation);
    stream.addEventListener("begun", function () {
      if (!list.children.length) status.textContent = "Looking. Nothing was said yet.";
    });
    stream.addEventListener("said", function (event) {
      var isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 20;
      status.textContent = "Looking.";
      list.insertAdjacentHTML("beforeend", event.data); // the server has escaped what people wrote
      while (list.children.length > LINES) list.firstElementChild.remove();
      if (isAtEnd) list.scrollTop = list.scrollHeight;
    });
    stream.addEventListener("ended", function (event) { stop(event.data); });
    // it would begin again by itself, and each beginning is written into the audit log
    stream.onerror = function () { stop("The connection ended."); };
  });
  end.addEventListener("click", function () { stop("Stopped."); begin.focus(); });
})();

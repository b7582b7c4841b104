// Parts of a page that show how it is now: <div class="live" data-live="URL" data-every="SECONDS">.
// The server's HTML replaces them, unless somebody is at work in them.
(function () {
  "use strict";

  function refresh(part) {
    if (document.hidden || part.contains(document.activeElement)) return Promise.resolve();
    return fetch(part.dataset.live, { headers: { "X-Requested-With": "fetch" } }).then(function (answer) {
      if (answer.redirected) { window.location.reload(); return; } // to the login
      if (answer.status === 404) { window.location.reload(); return; } // it is gone, and the page says so
      if (!answer.ok) { part.setAttribute("aria-busy", "true"); return; }
      return answer.text().then(function (html) {
        part.removeAttribute("aria-busy");
        if (part.dataset.seen !== html && !part.contains(document.activeElement)) {
          part.innerHTML = html;
          part.dataset.seen = html;
          reach();
        }
        follow(part);
      });
    }).catch(function () { part.setAttribute("aria-busy", "true"); });
  }

  // What may be done depends on the state, and stands outside of the part: the whole page is loaded again,
  // unless somebody is writing or is asked something.
  function follow(part) {
    var seen = part.querySelector("[data-state]");
    if (document.activeElement.form || document.querySelector(".modal.show")) return;
    if (seen && part.dataset.state && seen.dataset.state !== part.dataset.state) window.location.reload();
  }

  document.querySelectorAll(".live").forEach(function (part) {
    function again() { refresh(part).finally(function () { window.setTimeout(again, part.dataset.every * 1000); }); }
    window.setTimeout(again, part.dataset.every * 1000);
  });

  // A table that scrolls in its own box is reached by the keyboard.
  function reach() {
    document.querySelectorAll(".table-responsive").forEach(function (box) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    });
  }
  window.addEventListener("resize", reach);
  reach();

  // <button data-copy="TEXT">
  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy]");
    if (!button) return;
    navigator.clipboard.writeText(button.dataset.copy).then(function () {
      var label = button.textContent;
      button.textContent = "Copied";
      window.setTimeout(function () { button.textContent = label; }, 1500);
    });
  });

  // <form data-confirm="QUESTION">
  document.addEventListener("submit", function (event) {
    var question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });
})();
